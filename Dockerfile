# One image for the web, the workers and the release step: the command selects one. It holds Python and what
# requirements.txt pins; no compiler, no root.
#
#   docker build -t onelane .
#   docker run -e DATABASE_URL -e REDIS_URL -e CHANNELS onelane onelane migrate
#
# A bot of your own is a layer on top of it: docs/DEPLOY.md.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv --without-pip /opt/onelane
# The pins first, without the last line, which is the code itself: they change less often, and stay cached.
COPY requirements.txt .
RUN sed '/^\./d' requirements.txt > pins.txt \
    && pip --python /opt/onelane/bin/python install --no-cache-dir --requirement pins.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY worker worker
COPY sql sql
RUN pip --python /opt/onelane/bin/python install --no-cache-dir --no-deps .

FROM python:3.11-slim
COPY --from=build /opt/onelane /opt/onelane
# The bot's folder, where the worker looks for it. Nothing is written there, nor anywhere else: the disk may be
# read-only but for /tmp.
WORKDIR /bot
ENV PATH=/opt/onelane/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
# No HEALTHCHECK: only the web has something to ask (/healthz; see compose.yaml), and workers share this image.
CMD ["gunicorn", "-c", "python:onelane_web.gunicorn_settings", "onelane_web.wsgi:app"]

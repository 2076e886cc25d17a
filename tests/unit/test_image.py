"""What runs in a container: nobody's root, with code that it cannot change, and no secret in its layers."""

import re
from typing import Final

import pytest

from tests.conftest import ROOT

INSTRUCTION: Final = re.compile(r"^([A-Z]+) (.*)$", re.MULTILINE)
STAGES: Final = [
    INSTRUCTION.findall(stage)
    for stage in re.split(r"^(?=FROM )", (ROOT / "Dockerfile").read_text().replace("\\\n", " "), flags=re.MULTILINE)
    if stage.startswith("FROM ")
]
FINAL: Final = STAGES[-1]
SERVICES: Final = ("release", "web", "worker")


def named(name: str) -> list[str]:
    return [value for instruction, value in FINAL if instruction == name]


def test_it_has_the_python_of_the_dynos() -> None:
    version = (ROOT / ".python-version").read_text().strip()
    assert {stage[0][1].partition(" ")[0] for stage in STAGES} == {f"python:{version}-slim"}


def test_it_runs_as_nobody_who_has_a_name_and_is_never_root_again() -> None:
    [user] = named("USER")
    uid, gid = map(int, user.split(":"))
    assert min(uid, gid) >= 10_000
    assert FINAL.index(("USER", user)) > max(FINAL.index(("COPY", value)) for value in named("COPY"))


def test_its_code_is_roots_and_nobody_else_may_write() -> None:
    assert named("COPY") == ["--from=build /opt/onelane /opt/onelane"]
    assert not named("RUN") + named("ADD") + named("VOLUME")
    assert not re.search(r"chown|chmod", (ROOT / "Dockerfile").read_text())


def test_no_layer_has_a_secret_or_comes_from_an_address() -> None:
    for stage in STAGES:
        instructions = {instruction for instruction, _ in stage}
        assert not instructions & {"ADD", "ARG", "ONBUILD", "SHELL"}
        texts = " ".join(value for instruction, value in stage if instruction in {"ENV", "RUN"})
        assert not re.search(r"://|SECRET|PASSWORD|TOKEN|KEY", texts)


@pytest.mark.parametrize("service", SERVICES)
def test_compose_gives_it_a_disk_that_is_read_only_and_no_rights_of_roots(service: str) -> None:
    text = (ROOT / "compose.yaml").read_text()
    common = text.partition("\nx-onelane: &onelane\n")[2].partition("\n\n")[0]
    for line in ("read_only: true", "tmpfs: [/tmp]", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]'):
        assert f"  {line}" in common.splitlines(), line
    assert re.search(rf"^  {service}:\n    <<: \*onelane\n", text, re.MULTILINE)
    assert len(re.findall(r"read_only|cap_drop|privileged|user:", text)) == 2, "no service takes it back"


def test_compose_leaves_what_it_does_not_know_to_the_image_and_the_environment_file() -> None:
    text = (ROOT / "compose.yaml").read_text()
    told = text.partition("  environment: &environment\n")[2].partition("\n\n")[0]
    fixed = {name for name, value in re.findall(r"^    ([A-Z_]+): ?(.*)$", told, re.MULTILINE) if value}
    assert fixed == {"DATABASE_URL", "REDIS_URL", "LOG_FORMAT"}
    assert "  env_file: [{path: .env, required: false}]\n" in text
    assert '  image: "${IMAGE:-onelane}"\n' in text

-- Users, their sessions, their messages. Postgres decides: everything that must be true lies here.
-- Locks are always taken in this order: users, conversation_sessions, messages.

-- When a channel's sessions end. Written from the settings when a process starts; a channel without a row has
-- the defaults of policy_of().
CREATE TABLE channel_policies (
    channel              text PRIMARY KEY,
    idle_timeout_s       integer NOT NULL CHECK (idle_timeout_s > 0),
    day_start            time,
    timezone             text,
    max_age_s            integer CHECK (max_age_s > 0),
    escalation_timeout_s integer NOT NULL CHECK (escalation_timeout_s > 0),
    CONSTRAINT a_day_starts_somewhere CHECK (day_start IS NULL OR timezone IS NOT NULL),
    -- day_start_instant() halves to whole seconds: with fractions it would not end.
    CONSTRAINT a_day_starts_on_a_minute CHECK (extract(second FROM day_start) = 0)
);

-- One person on one channel. The row's lock is what serialises everything about a user.
CREATE TABLE users (
    id               uuid PRIMARY KEY,
    channel          text NOT NULL,
    sender           text NOT NULL,
    state            jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(state) = 'object'),
    last_seq         bigint NOT NULL DEFAULT 0,
    waiting          integer NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    last_accepted_at timestamptz,
    fence            bigint NOT NULL DEFAULT 0,
    paused_at        timestamptz,
    pause_reason     text CHECK (pause_reason IN ('operator', 'poison')),
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (channel, sender),
    CONSTRAINT a_pause_has_a_reason CHECK ((paused_at IS NULL) = (pause_reason IS NULL))
) WITH (fillfactor = 70);

CREATE TABLE conversation_sessions (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id         uuid NOT NULL REFERENCES users,
    status          text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'escalated', 'ended')),
    started_at      timestamptz NOT NULL,
    last_message_at timestamptz NOT NULL,
    escalated_at    timestamptz,
    ended_at        timestamptz,
    ended_reason    text CHECK (ended_reason IN
                        ('timeout', 'end_of_day', 'max_age', 'user_request', 'handler', 'operator')),
    summary         text,
    state           jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(state) = 'object'),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT an_end_has_a_reason_and_a_time CHECK (
        (status = 'ended') = (ended_at IS NOT NULL) AND (status = 'ended') = (ended_reason IS NOT NULL)),
    CONSTRAINT an_escalation_has_a_time CHECK (status <> 'escalated' OR escalated_at IS NOT NULL),
    CONSTRAINT time_runs_forward CHECK (started_at <= last_message_at AND last_message_at <= coalesce(ended_at, last_message_at))
) WITH (fillfactor = 70);

-- Forbids a second open session of one user, whatever the code above it does.
CREATE UNIQUE INDEX idx_unique_active_session_per_user ON conversation_sessions (user_id) WHERE status <> 'ended';
CREATE INDEX conversation_sessions_by_user ON conversation_sessions (user_id, started_at);
-- The sweeper walks the open sessions in this order; it holds no column that a turn changes.
CREATE INDEX conversation_sessions_open ON conversation_sessions (id) WHERE status <> 'ended';

-- Inbound messages in their user's order, and the replies to them. turn_seq is the inbound message's seq, ordinal 0
-- the message and 1, 2, … its replies.
CREATE TABLE messages (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id      uuid NOT NULL REFERENCES users,
    session_id   uuid REFERENCES conversation_sessions,
    direction    text NOT NULL CHECK (direction IN ('in', 'out')),
    seq          bigint,
    turn_seq     bigint NOT NULL,
    ordinal      integer NOT NULL DEFAULT 0,
    state        text NOT NULL,
    channel      text NOT NULL,
    external_id  text,
    text         text NOT NULL DEFAULT '',
    button       text,
    attachments  jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(attachments) = 'array'),
    sent_at      timestamptz,
    accepted_at  timestamptz NOT NULL,
    processed_at timestamptz,
    attempts     integer NOT NULL DEFAULT 0,
    deaths       integer NOT NULL DEFAULT 0,
    last_error   text,
    redriven_at  timestamptz,
    -- When an operator said that a dead message may be forgotten. It stays dead, and is listed no more.
    dropped_at   timestamptz,
    -- An end that a command asked for while this message was the last waiting: it takes effect once it is terminal.
    end_at       timestamptz,
    end_reason   text,
    CONSTRAINT a_message_of_a_turn_is_one UNIQUE (user_id, turn_seq, ordinal),
    CONSTRAINT inbound_messages_are_numbered CHECK (
        CASE direction WHEN 'in' THEN seq = turn_seq AND ordinal = 0 ELSE seq IS NULL AND ordinal > 0 END),
    CONSTRAINT a_state_fits_its_direction CHECK (
        CASE direction WHEN 'in' THEN state IN ('received', 'processed', 'dead')
                       ELSE state IN ('pending', 'withheld') END),
    CONSTRAINT a_noted_end_is_whole CHECK ((end_at IS NULL) = (end_reason IS NULL)),
    CONSTRAINT a_terminal_message_has_a_session CHECK (state = 'received' OR session_id IS NOT NULL)
) WITH (fillfactor = 80);

-- Forbids accepting one delivery twice.
CREATE UNIQUE INDEX messages_deduplicated ON messages (user_id, external_id) WHERE direction = 'in';
-- A user's waiting messages, lowest first: what begin_turn reads.
CREATE INDEX messages_waiting ON messages (user_id, seq) WHERE state = 'received';
CREATE INDEX messages_by_session ON messages (session_id, turn_seq, ordinal);
CREATE INDEX messages_dead ON messages (user_id, seq) WHERE state = 'dead';

-- What a handler saved for later turns of the same session.
CREATE TABLE tool_outputs (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES conversation_sessions,
    message_id uuid NOT NULL REFERENCES messages,
    name       text NOT NULL,
    data       jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX tool_outputs_by_name ON tool_outputs (session_id, name, id);

-- What session_anomalies walks for "since yesterday". Sessions are inserted once and never change started_at; messages
-- and tool outputs come in the order of time, for which a BRIN of a few pages is enough.
CREATE INDEX conversation_sessions_by_start ON conversation_sessions (started_at);
CREATE INDEX messages_by_time ON messages USING brin (accepted_at) WITH (autosummarize = on);
CREATE INDEX tool_outputs_by_time ON tool_outputs USING brin (created_at) WITH (autosummarize = on);

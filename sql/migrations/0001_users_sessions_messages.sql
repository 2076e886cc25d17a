-- Users, their sessions, their messages. Everything that must be true is a constraint or an index here.
-- What waits lies in `inbox`, small and short-lived; what is done lies in `messages`, written once. Replies that are not
-- terminal yet lie in `outbox`, and in `messages` as well.
-- Locks are always taken in this order: aliases (advisory), users, conversation_sessions, inbox. Sending takes others, and
-- none of these: out_lanes, outbox, then names of what was sent and of channels (advisory, never waited for in a list).

-- Makes an id: random in its identity, ordered by time (UUID version 7), so that inserts stay at the end of an index.
CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        overlay(uuid_send(gen_random_uuid())
                PLACING int8send((date_part('epoch', clock_timestamp()) * 1000)::bigint << 16 | x'7000'::bigint)
                FROM 1 FOR 8),
        'hex')::uuid
$$;

-- What a column may hold, as a type: unlike a CHECK of a table, which every statement parses and every update asks
-- again, it is read once a connection and asks only about what is written.
CREATE DOMAIN jsonb_object AS jsonb CHECK (jsonb_typeof(VALUE) = 'object');
CREATE DOMAIN jsonb_array AS jsonb CHECK (jsonb_typeof(VALUE) = 'array');
CREATE DOMAIN amount AS integer CHECK (VALUE >= 0);
-- A lease's number, exact also as a double, which scripts in Redis count with.
CREATE DOMAIN fence_number AS bigint CHECK (VALUE BETWEEN 0 AND 9007199254740991);
CREATE DOMAIN message_kind AS text CHECK (VALUE IN ('message', 'event', 'echo'));
CREATE DOMAIN message_direction AS text CHECK (VALUE IN ('in', 'out'));
CREATE DOMAIN session_status AS text CHECK (VALUE IN ('active', 'escalated', 'ended'));
CREATE DOMAIN session_end_reason AS text CHECK (
    VALUE IN ('timeout', 'end_of_day', 'max_age', 'user_request', 'handler', 'operator'));
CREATE DOMAIN pause_reason AS text CHECK (VALUE IN ('operator', 'poison'));
CREATE DOMAIN send_state AS text CHECK (VALUE IN ('pending', 'sending', 'unknown'));
CREATE DOMAIN reply_status AS text CHECK (VALUE IN ('sent', 'delivered', 'read', 'failed'));

-- What must hold between the columns of the two tables that a turn writes. The expression of a CHECK is parsed anew by
-- every statement that writes, and a function's only once a connection.
CREATE FUNCTION is_whole_session(
    status text, started_at timestamptz, last_message_at timestamptz, escalated_at timestamptz, ended_at timestamptz,
    ended_reason text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (status = 'ended') = (ended_at IS NOT NULL) AND (status = 'ended') = (ended_reason IS NOT NULL)
       AND (status <> 'escalated' OR escalated_at IS NOT NULL)
       AND started_at <= last_message_at AND last_message_at <= coalesce(ended_at, last_message_at);
END $$;

-- What users write lies in sessions; what comes in is numbered; a state is one of its direction.
CREATE FUNCTION is_whole_line(
    direction text, kind text, session_id uuid, seq bigint, turn_seq bigint, ordinal integer, state text)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (session_id IS NOT NULL OR kind <> 'message' OR direction = 'out') AND CASE direction
        WHEN 'in' THEN seq = turn_seq AND ordinal = 0 AND state IN ('processed', 'dead')
        ELSE seq IS NULL AND ordinal > 0 AND state IN (
            'pending', 'sent', 'delivered', 'read', 'failed', 'unknown', 'withheld', 'dropped') END;
END $$;

-- Whose lanes in Redis are ours: this id stands there, too, and two deployments that share a Redis by mistake see it.
-- A restored database, and a copy of one, has the id of the original.
CREATE TABLE deployment (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid()
);
-- Forbids a second row.
CREATE UNIQUE INDEX one_deployment ON deployment ((true));
INSERT INTO deployment DEFAULT VALUES;

-- When a channel's sessions end, and whether its events make turns. Written from the settings when a process starts; a
-- channel without a row has the defaults of policy_of().
CREATE TABLE channel_policies (
    channel              text PRIMARY KEY,
    idle_timeout_s       integer NOT NULL CHECK (idle_timeout_s > 0),
    day_start            time,
    timezone             text,
    max_age_s            integer CHECK (max_age_s > 0),
    escalation_timeout_s integer NOT NULL CHECK (escalation_timeout_s > 0),
    -- Whether the bot has a function for events: then they wait for a turn, as messages do.
    wants_events         boolean NOT NULL DEFAULT false,
    -- How many consecutive messages one turn may take.
    batch_max            integer NOT NULL DEFAULT 1 CHECK (batch_max BETWEEN 1 AND 100),
    CONSTRAINT a_day_starts_somewhere CHECK (day_start IS NULL OR timezone IS NOT NULL),
    -- day_start_instant() halves to whole seconds: with fractions it would not end.
    CONSTRAINT a_day_starts_on_a_minute CHECK (extract(second FROM day_start) = 0)
);

-- One conversation partner on one channel. The row's lock is what serialises everything about a user.
CREATE TABLE users (
    id               uuid PRIMARY KEY DEFAULT new_id(),
    channel          text NOT NULL,
    -- The identifier that the provider prefers, as the newest message named it. All are in user_aliases.
    sender           text NOT NULL,
    state            jsonb_object NOT NULL DEFAULT '{}',
    -- The number of the newest accepted message.
    last_seq         bigint NOT NULL DEFAULT 0,
    -- No waiting message has a lower number: where every look-up begins, so that none walks over what is done.
    next_seq         bigint NOT NULL DEFAULT 1,
    waiting          amount NOT NULL DEFAULT 0,
    -- Goes up with everything that changes what a turn may have read: a turn that read an older one is stale.
    version          bigint NOT NULL DEFAULT 0,
    -- The newest lease that has written.
    fence            fence_number NOT NULL DEFAULT 0,
    last_accepted_at timestamptz,
    -- When the person wrote last, by the provider's clock if that is earlier: some take replies for a day after it.
    last_written_at  timestamptz,
    paused_at        timestamptz,
    pause_reason     pause_reason,
    -- How often the user was paused: names a pause for one who asks for it again.
    pauses           integer NOT NULL DEFAULT 0,
    -- The same of escalations that were noted on waiting messages.
    notes            integer NOT NULL DEFAULT 0,
    -- Since when the person wants no more messages; lifted by the person or an operator.
    opted_out_at     timestamptz,
    -- Since when somebody else may have the number; until an operator confirms, what the user's state was lies aside.
    owner_changed_at timestamptz,
    state_aside      jsonb_object,
    -- Names were taken from this user: who has found the user by one looks again once the row is locked.
    names_moved      boolean NOT NULL DEFAULT false,
    -- Names that were dropped: what was written before and is delivered late must not bring one back.
    former_names     text[] NOT NULL DEFAULT '{}',
    -- The user in whose place this one has nothing more to say: its names and what waited are that one's.
    merged_into      uuid REFERENCES users,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT a_pause_has_a_reason CHECK ((paused_at IS NULL) = (pause_reason IS NULL))
) WITH (fillfactor = 70);

-- Every identifier that a provider has used for a user. Forbids that one of them means two users.
CREATE TABLE user_aliases (
    channel    text NOT NULL,
    alias      text NOT NULL,
    user_id    uuid NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (channel, alias)
);
CREATE INDEX user_aliases_by_user ON user_aliases (user_id);

-- Whose history is another's too. Of all other users the index has nothing.
CREATE INDEX users_merged ON users (merged_into) WHERE merged_into IS NOT NULL;

-- Users whose names came together in one delivery: perhaps one person, which only an operator can tell. Both ways round.
CREATE TABLE identity_conflicts (
    user_id  uuid NOT NULL REFERENCES users,
    other_id uuid NOT NULL REFERENCES users,
    noted_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, other_id)
);
CREATE INDEX identity_conflicts_by_other ON identity_conflicts (other_id);

CREATE TABLE conversation_sessions (
    id              uuid PRIMARY KEY DEFAULT new_id(),
    user_id         uuid NOT NULL REFERENCES users,
    status          session_status NOT NULL DEFAULT 'active',
    started_at      timestamptz NOT NULL,
    last_message_at timestamptz NOT NULL,
    -- When it was last escalated: also names that escalation, once it is handed back.
    escalated_at    timestamptz,
    ended_at        timestamptz,
    ended_reason    session_end_reason,
    -- Before this instant it need not be asked whether the session is over. Only the sweeper moves it on: a turn that
    -- did would write an index entry.
    sweep_at        timestamptz NOT NULL,
    summary         text,
    state           jsonb_object NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT a_session_is_whole CHECK (
        is_whole_session(status, started_at, last_message_at, escalated_at, ended_at, ended_reason))
) WITH (fillfactor = 70);

-- Forbids a second open session of one user, whatever the code above it does.
CREATE UNIQUE INDEX idx_unique_active_session_per_user ON conversation_sessions (user_id) WHERE status <> 'ended';
CREATE INDEX conversation_sessions_by_user ON conversation_sessions (user_id, started_at);
-- What the sweeper walks.
CREATE INDEX conversation_sessions_to_sweep ON conversation_sessions (sweep_at) WHERE status <> 'ended';

-- Which deliveries were accepted. Forbids accepting one twice. Kept for longer than any provider delivers again.
CREATE TABLE accepted_deliveries (
    channel     text NOT NULL,
    external_id text NOT NULL,
    user_id     uuid NOT NULL,
    message_id  uuid NOT NULL,
    seq         bigint NOT NULL,
    accepted_at timestamptz NOT NULL,
    -- Of what the adapter understood: another one under the same id is counted.
    content_hash bigint,
    -- Its message is forgotten before it is: no line names it any more.
    is_alone     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (channel, external_id)
);
-- By it a person's are found that no line names. Of all others it has nothing: to accept writes no more for it.
CREATE INDEX accepted_deliveries_alone ON accepted_deliveries (user_id) WHERE is_alone;
CREATE INDEX accepted_deliveries_by_time ON accepted_deliveries USING brin (accepted_at) WITH (autosummarize = on);

-- Messages that wait for their turn, in their user's order. Inserted at accept, deleted when they are terminal.
CREATE TABLE inbox (
    user_id     uuid NOT NULL,
    seq         bigint NOT NULL,
    id          uuid NOT NULL,
    -- The session in which it died, when it was redriven; else its turn finds one.
    session_id  uuid REFERENCES conversation_sessions,
    kind        message_kind NOT NULL DEFAULT 'message',
    channel     text NOT NULL,
    external_id text NOT NULL,
    text        text NOT NULL DEFAULT '',
    button      text,
    attachments jsonb_array NOT NULL DEFAULT '[]',
    -- The way back, as the adapter understands it.
    route       jsonb,
    -- What happened, where it is an event.
    event       text,
    -- A command or a button, which is never answered together with others.
    closes      boolean NOT NULL DEFAULT false,
    -- What is neither text nor file, by its name.
    parts       jsonb_object,
    -- The provider's own object; a large one lies in payloads.
    raw         jsonb,
    has_payload boolean NOT NULL DEFAULT false,
    -- The line that it answers, edits, deletes or reacts to, by the provider's id.
    quoted      text,
    author      jsonb_object,
    mentioned   boolean NOT NULL DEFAULT false,
    -- What had to be mended so that it could be stored.
    repairs     jsonb_array,
    -- How history shows it since: what a handler gets is what was accepted.
    edited_text text,
    deleted_at  timestamptz,
    traceparent text,
    sent_at     timestamptz,
    accepted_at timestamptz NOT NULL,
    attempts    integer NOT NULL DEFAULT 0,
    deaths      integer NOT NULL DEFAULT 0,
    last_error  text,
    -- Runs that were put off because what the handler needs was away, and when the first was.
    laters      integer NOT NULL DEFAULT 0,
    later_since timestamptz,
    redriven_at timestamptz,
    -- The last number of the batch whose lowest member this is, once its membership is frozen.
    batch_last  bigint,
    -- How often in a row a turn of that batch was thrown away for what came meanwhile.
    superseded  integer NOT NULL DEFAULT 0,
    -- Results of steps are kept for that batch.
    has_steps   boolean NOT NULL DEFAULT false,
    -- It came while the user was answered, and is not answered: its channel says so.
    is_busy     boolean NOT NULL DEFAULT false,
    -- An end that a command asked for while this message was the last waiting: it takes effect once it is terminal.
    end_at      timestamptz,
    end_reason  text,
    -- An escalation by command of the session that this message is to lie in.
    escalate_at timestamptz,
    -- The last message before somebody else got the number: what the user's state is then is put aside.
    puts_state_aside boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, seq),
    CONSTRAINT a_noted_end_is_whole CHECK ((end_at IS NULL) = (end_reason IS NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
-- Only redriven messages have a session: an end of one asks for them.
CREATE INDEX inbox_redriven ON inbox (session_id) WHERE session_id IS NOT NULL;

-- History: an inbound message once it is terminal, and the replies to it. turn_seq is the inbound message's seq,
-- ordinal 0 the message and 1, 2, … its replies. No column that changes is indexed,
-- and pages have room for what becomes of replies, so that it writes no index.
CREATE TABLE messages (
    id           uuid PRIMARY KEY DEFAULT new_id(),
    user_id      uuid NOT NULL,
    session_id   uuid REFERENCES conversation_sessions,
    direction    message_direction NOT NULL,
    kind         message_kind NOT NULL DEFAULT 'message',
    seq          bigint,
    turn_seq     bigint NOT NULL,
    ordinal      integer NOT NULL DEFAULT 0,
    state        text NOT NULL,
    channel      text NOT NULL,
    external_id  text,
    text         text NOT NULL DEFAULT '',
    button       text,
    attachments  jsonb_array NOT NULL DEFAULT '[]',
    route        jsonb,
    -- What happened, where it is an event.
    event        text,
    -- A command or a button, which is never answered together with others.
    closes       boolean NOT NULL DEFAULT false,
    -- What is neither text nor file, by its name.
    parts        jsonb_object,
    -- The provider's own object; a large one lies in payloads.
    raw          jsonb,
    has_payload  boolean NOT NULL DEFAULT false,
    -- The line that it answers, edits, deletes or reacts to, by the provider's id.
    quoted       text,
    author       jsonb_object,
    mentioned    boolean NOT NULL DEFAULT false,
    -- What had to be mended so that it could be stored.
    repairs      jsonb_array,
    -- How history shows it since: what a handler gets is what was accepted.
    edited_text  text,
    deleted_at   timestamptz,
    traceparent  text,
    sent_at      timestamptz,
    accepted_at  timestamptz NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts     integer NOT NULL DEFAULT 0,
    deaths       integer NOT NULL DEFAULT 0,
    last_error   text,
    redriven_at  timestamptz,
    -- The last number of the batch whose lowest member this was; a batch of one has none.
    batch_last   bigint,
    -- The lease under which it was settled, by its token: its worker's name, a colon, its fence.
    lease        text,
    -- An end by command that took effect with this message.
    end_at       timestamptz,
    -- When an operator dropped a dead message. It stays dead, and is listed no more.
    dropped_at   timestamptz,
    -- As `state` says, in a column that a reply's states leave alone: what an index names must not change.
    is_dead      boolean NOT NULL GENERATED ALWAYS AS (state = 'dead') STORED,
    -- Of a reply: the provider's id of it, how many requests it took, and when the provider said what became of it.
    provider_id   text,
    send_attempts amount NOT NULL DEFAULT 0,
    delivered_at  timestamptz,
    read_at       timestamptz,
    failed_at     timestamptz,
    -- Why it was not sent, in our word and by the provider's code.
    failure       text,
    failure_code  text,
    -- When nobody asked any more whether it was sent. A later word of the provider moves it all the same.
    given_up_at   timestamptz,
    -- When a second message of it was found to have been sent.
    duplicated_at timestamptz,
    CONSTRAINT a_message_of_a_turn_is_one UNIQUE (user_id, turn_seq, ordinal),
    CONSTRAINT a_line_is_whole CHECK (is_whole_line(direction, kind, session_id, seq, turn_seq, ordinal, state))
) WITH (fillfactor = 70);
CREATE INDEX messages_by_session ON messages (session_id, turn_seq, ordinal);
CREATE INDEX messages_dead ON messages (user_id, seq) WHERE is_dead;
-- Replies of which nobody will know. Of all others it has nothing, so that only to give one up writes to indexes.
CREATE INDEX messages_given_up ON messages (id) WHERE given_up_at IS NOT NULL;

-- Replies that are not terminal, in their user's order. What they say is in messages, under the same id, where they are
-- `pending` meanwhile. Inserted when they are committed, deleted when they are terminal. No column that changes is indexed.
CREATE TABLE outbox (
    user_id       uuid NOT NULL,
    turn_seq      bigint NOT NULL,
    ordinal       integer NOT NULL,
    -- Also the key under which the provider gets it.
    id            uuid NOT NULL,
    channel       text NOT NULL,
    state         send_state NOT NULL DEFAULT 'pending',
    -- How many requests were begun; the newest one's number, which no other has. And how many of them count: limits of
    -- a provider are no attempts.
    requests      amount NOT NULL DEFAULT 0,
    attempts      amount NOT NULL DEFAULT 0,
    -- The lease that began the newest request. Two may have one number, after a fail-over of Redis; the token tells them
    -- apart.
    fence         fence_number,
    token         text,
    sending_at    timestamptz,
    first_sent_at timestamptz,
    -- Not sent before: its own backoff.
    not_before    timestamptz,
    unknown_since timestamptz,
    -- Whether the newest request is known to be over, whatever came of it.
    ends_known    boolean NOT NULL DEFAULT false,
    -- Whether a request was made again after one of which nobody knew what came of it.
    resent        boolean NOT NULL DEFAULT false,
    -- What the newest answer said.
    failure       text,
    failure_code  text,
    PRIMARY KEY (user_id, turn_seq, ordinal)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX outbox_by_id ON outbox (id);

-- The lane on which a user's replies are sent. The row's lock is what serialises that, beside the user's turns.
CREATE TABLE out_lanes (
    user_id    uuid PRIMARY KEY,
    -- The newest lease that has begun a request, or taken over what is not known.
    fence      fence_number NOT NULL DEFAULT 0,
    -- The provider takes nothing more for this user before.
    not_before timestamptz,
    -- The turn whose reply was handed out last: where every look-up begins, so that none walks over what was sent. Only
    -- replies to a redriven message can wait below.
    from_seq   bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 80);

-- Channels that send nothing for a while. A channel without a row sends.
CREATE TABLE channel_holds (
    channel    text PRIMARY KEY,
    -- The account's limit is reached until then.
    not_before timestamptz,
    -- Since when the provider refuses everything of the channel; our word for why, and the provider's code.
    broken_at  timestamptz,
    word       text,
    code       text,
    -- When one reply is sent again, to see whether it still does.
    probe_at   timestamptz,
    CONSTRAINT what_is_broken_is_probed CHECK ((broken_at IS NULL) = (probe_at IS NULL))
) WITH (fillfactor = 50);

-- Which reply a message of a provider is: for statuses, edits and quotes. Inserted once.
CREATE TABLE provider_messages (
    channel     text NOT NULL,
    provider_id text NOT NULL,
    user_id     uuid NOT NULL,
    reply_id    uuid NOT NULL,
    -- The reply's line names another id: it was sent twice, or again.
    is_extra    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (channel, provider_id)
);
CREATE INDEX provider_messages_extra ON provider_messages (reply_id) WHERE is_extra;

-- Replies that failed, until that is an event of their user.
CREATE TABLE failures_to_tell (
    reply_id  uuid PRIMARY KEY,
    user_id   uuid NOT NULL,
    word      text NOT NULL,
    code      text,
    failed_at timestamptz NOT NULL
);

-- The provider's own objects that are over 1 kB, of waiting and of done messages. Written once.
CREATE TABLE payloads (
    message_id uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    raw        jsonb NOT NULL
);

-- The calls of a handler's tools, of what it saved for later turns of the session too. Forbids a call without its output.
CREATE TABLE tool_calls (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    uuid NOT NULL,
    session_id uuid NOT NULL REFERENCES conversation_sessions,
    message_id uuid NOT NULL,
    call_id    text NOT NULL,
    name       text NOT NULL,
    arguments  jsonb_object NOT NULL DEFAULT '{}',
    output     jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX tool_calls_by_name ON tool_calls (session_id, name, id);

-- Results of a running batch's steps: a turn that runs again reads them instead of doing the step again. The batch is its
-- lowest message and its last number, so that a widened one never gets the answer to the old question.
CREATE TABLE steps (
    user_id    uuid NOT NULL,
    message_id uuid NOT NULL,
    last_seq   bigint NOT NULL,
    key        text NOT NULL,
    value      jsonb NOT NULL,
    PRIMARY KEY (message_id, last_seq, key)
);
CREATE INDEX steps_by_user ON steps (user_id);

-- Lanes that were taken over from a holder that had died or hung, and the message that waited first then. A lease's
-- token is its worker's name and its fence.
CREATE TABLE takeovers (
    user_id    uuid NOT NULL,
    message_id uuid NOT NULL,
    fence      fence_number NOT NULL,
    token      text,
    taken_from text,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, message_id, fence)
);

-- Verified webhooks that were not understood, whole, until an operator replays or drops them.
CREATE TABLE quarantined_payloads (
    id           uuid PRIMARY KEY DEFAULT new_id(),
    channel      text NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- What was not understood, and why; nothing of the webhook is quoted.
    reasons      jsonb_array NOT NULL,
    content_type text NOT NULL,
    query        text NOT NULL,
    -- Those that adapters read; no secret, no signature.
    headers      jsonb_object NOT NULL,
    body         bytea NOT NULL,
    digest       bytea NOT NULL,
    expires_at   timestamptz NOT NULL,
    -- Forbids keeping a webhook twice that is delivered again.
    CONSTRAINT a_webhook_is_kept_once UNIQUE (channel, digest)
);
CREATE INDEX quarantined_payloads_by_end ON quarantined_payloads (expires_at);

-- What providers say became of replies. Forbids keeping one word of a provider twice.
CREATE TABLE reply_statuses (
    channel      text NOT NULL,
    provider_id  text NOT NULL,
    state        reply_status NOT NULL,
    -- Whose copy it is about, in a group; empty elsewhere.
    participant  text NOT NULL,
    -- The reply's own id, where the provider gives it back.
    key          uuid,
    at           timestamptz,
    -- Why it failed, in our word and by the provider's code.
    failure      text,
    failure_code text,
    received_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (channel, provider_id, state, participant)
);
CREATE INDEX reply_statuses_by_time ON reply_statuses USING brin (received_at) WITH (autosummarize = on);
-- By these a person's are found.
CREATE INDEX reply_statuses_by_key ON reply_statuses (key) WHERE key IS NOT NULL;
CREATE INDEX reply_statuses_by_participant ON reply_statuses (channel, participant) WHERE participant <> '';

-- The bytes of files that replies are sent with, from just before their turn is committed until they are sent. A turn
-- that is not committed leaves them: see forget_files.
CREATE TABLE reply_files (
    id         uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    turn_seq   bigint NOT NULL,
    -- Empty once it is uploaded.
    data       bytea NOT NULL,
    -- How the provider names it, once it has it.
    uploaded   jsonb_object,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What session_anomalies walks for "since yesterday". Sessions are inserted once and never change started_at; messages
-- and tool calls come in the order of time, for which a BRIN of a few pages is enough.
CREATE INDEX conversation_sessions_by_start ON conversation_sessions (started_at);
CREATE INDEX messages_by_time ON messages USING brin (accepted_at) WITH (autosummarize = on);
CREATE INDEX tool_calls_by_time ON tool_calls USING brin (created_at) WITH (autosummarize = on);

-- What operators have done and looked at, in the order of nr. Rows are added, and nothing else: that somebody was
-- forgotten takes the person out of them, and leaves the act.
CREATE TABLE audit (
    nr      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Names the asking: a call that is repeated writes no second row.
    id      uuid NOT NULL UNIQUE,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    who     text NOT NULL,
    act     text NOT NULL,
    -- On whom: a user's id. What is of no user names a channel or a webhook here.
    subject text,
    detail  jsonb_object NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_by_subject ON audit (subject, nr);

CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.subject IS NULL AND NEW.detail = '{}'
       AND (NEW.nr, NEW.id, NEW.at, NEW.who, NEW.act) = (OLD.nr, OLD.id, OLD.at, OLD.who, OLD.act) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the audit is only added to';
END $$;
-- Forbids changing what was written down.
CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION keep_audit();

-- Who is logged in to the operator's pages. The token itself is in a cookie only.
CREATE TABLE operator_logins (
    digest     bytea PRIMARY KEY,
    name       text NOT NULL,
    -- Stands for the password: once that has changed, the login is over.
    credential bytea NOT NULL,
    ends_at    timestamptz NOT NULL
);

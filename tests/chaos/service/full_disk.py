"""A disk of Postgres that is full when we say so: inserts then fail as they do when a table can grow no more.

What is real: the SQLSTATE (53100) and where it arises, inside the service's own statements and functions, while reads
and updates in place go on, as they do on a full disk. What is not: the disk has room, so the server itself never stops
for want of WAL; an insert fails before it has written anything; and updates that would need a new page succeed.
"""

import psycopg

PREPARE = """
CREATE SCHEMA chaos;
CREATE TABLE chaos.full_disk (share float);
COMMENT ON TABLE chaos.full_disk IS 'While it has a row, so large a share of all inserting statements fails.';
CREATE FUNCTION chaos.refuse_when_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM chaos.full_disk WHERE random() < share) THEN
        RAISE EXCEPTION 'could not extend a file: No space left on device (planted)' USING ERRCODE = 'disk_full';
    END IF;
    RETURN NULL;
END $$;
DO $$
DECLARE
    v_table text;
BEGIN
    FOR v_table IN SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('CREATE TRIGGER full_disk BEFORE INSERT ON %s FOR EACH STATEMENT'
                       ' EXECUTE FUNCTION chaos.refuse_when_full()', v_table);
    END LOOP;
END $$;
"""


def prepare(url: str) -> None:
    """Give every table of the service the trigger that can refuse; until it is told to, it refuses nothing."""
    with psycopg.connect(url) as connection:
        connection.execute(PREPARE)


def fill(connection: psycopg.Connection, share: float) -> None:
    """Let this share of all inserting statements fail from now on."""
    connection.execute("INSERT INTO chaos.full_disk VALUES (%s)", (share,))


def clear(connection: psycopg.Connection) -> None:
    """Make room again."""
    connection.execute("DELETE FROM chaos.full_disk")

-- Whether this server takes writes: makes a user and takes that back. Raises what a turn's commit would meet.
CREATE OR REPLACE FUNCTION probe() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO users (channel, sender) VALUES ('', 'probe');
    RAISE EXCEPTION USING ERRCODE = 'OL002';
EXCEPTION WHEN SQLSTATE 'OL002' THEN
    NULL;
END $$;

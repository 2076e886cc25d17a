-- Names the tables that have rows of users: all that have a column user_id; last those to which others refer.
CREATE OR REPLACE FUNCTION tables_of_users() RETURNS SETOF name
LANGUAGE sql STABLE AS $$
    SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
     WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'users'::regclass)
       AND c.relkind = 'r' AND a.attname = 'user_id' AND NOT a.attisdropped
     ORDER BY c.relname = 'conversation_sessions', c.relname
$$;

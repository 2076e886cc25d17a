-- Lists the users whose lanes are due, the longest first. Reads only.
-- ARGV: now, the most to list
return peek('ZRANGE', LANES, '-inf', digits(lanes_clock(ARGV[1])), 'BYSCORE', 'LIMIT', 0, ARGV[2]) or {}

-- Reads the lanes' clock. Returns it in ms.
return digits(lanes_clock(ARGV[1]))

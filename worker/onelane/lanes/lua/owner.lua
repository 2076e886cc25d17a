-- Compares whose lanes these are, as every script does first (prelude.lua), and does nothing else.
return 1

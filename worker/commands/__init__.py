"""One file a command of `lanekeeper`, each shallow: parse, call one function, word the answer."""

"""One file a command of `onelane`, each shallow: parse, call one function, word the answer."""

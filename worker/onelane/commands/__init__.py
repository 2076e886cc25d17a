"""The commands of `onelane`, one file each: parse the arguments, call one function, print the result."""

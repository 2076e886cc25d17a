"""The core of Lanekeeper: lanes, locks, sessions and turns. It knows no web framework."""

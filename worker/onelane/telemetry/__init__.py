"""Log events and numbers of the service. Neither holds a text, a sender or an address of a user."""

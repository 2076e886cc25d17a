"""How requests reach the application: one loop waits for all clients, and a thread gets a request when it is whole.

Gunicorn starts the processes, parses requests and formats answers. What is ours is in between: nobody who sends or
reads slowly holds a thread, and everybody has a deadline.
"""

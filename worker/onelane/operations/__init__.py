"""What an operator can see and do: the views behind commands and pages, and every act."""

"""What runs on a developer's machine only: embedded servers, `onelane run`, the incident."""

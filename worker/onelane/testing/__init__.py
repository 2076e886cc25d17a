"""What tests, benchmarks and `onelane run` put in the place of the world outside. No production process imports it."""

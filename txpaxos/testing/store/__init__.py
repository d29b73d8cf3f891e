"""What any store must do, as tests for a store of one's own."""

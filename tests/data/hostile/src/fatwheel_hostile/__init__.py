"""What a hostile project installs: nothing but what its attempts met."""

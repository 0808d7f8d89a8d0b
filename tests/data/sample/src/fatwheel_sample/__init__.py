"""fatwheel's sample project for tests."""

"""The paper's Tables II and III on the project's data sets, cell by cell."""

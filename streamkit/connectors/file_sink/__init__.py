"""Files as a sink: written aside, and shown whole when the job has committed them."""

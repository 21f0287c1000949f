"""Times models, and the stages of an encode job."""

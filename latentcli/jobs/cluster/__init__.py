"""Joins the processes of one job, on one machine or many, into a team."""

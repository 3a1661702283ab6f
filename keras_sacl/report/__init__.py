"""What people look at: the page of a run, its pictures and tables, and what training costs."""

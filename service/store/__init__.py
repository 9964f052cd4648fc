"""The store: the one durable truth about jobs, and the only place that knows SQL."""

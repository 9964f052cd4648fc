"""The one service: model, scheduling, store, events, manager, and its wire."""

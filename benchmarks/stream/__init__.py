"""What streaming costs, question by question: each module has ``measure(setup)``, which gives figures."""

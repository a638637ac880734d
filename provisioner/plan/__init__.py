"""The difference in order, cut into phases by what each costs."""

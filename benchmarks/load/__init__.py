"""Many clients at once, for minutes: is anything lost or crossed, is memory bounded, are shares fair?"""

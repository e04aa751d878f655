"""Words that the synthetic shop is made of. No name belongs to a real company or person."""

from __future__ import annotations

FIRST_NAMES = (
    "Ada", "Amal", "Anaïs", "Björn", "Chidi", "Dana", "Elif", "Emeka", "Fatima", "Goran", "Hana", "Ines",
    "Jonas", "Kaja", "Lena", "Mateo", "Nadia", "Oskar", "Priya", "Quinn", "Rosa", "Søren", "Tomás", "Yuki", "Zofia",
)  # fmt: skip
LAST_NAMES = (
    "Abara", "Bergström", "Castellanos", "Dvořák", "Eriksen", "Fournier", "Grünwald", "Haddad", "Ivanova", "Jansen",
    "Kowalczyk", "Lindqvist", "Moreau", "Nakamura", "O'Brien", "Petrov", "Quispe", "Rossi", "Şahin", "Tanaka",
    "Unger", "Vasquez", "Wójcik", "Yildiz", "Žižka",
)  # fmt: skip
COMPANIES = (
    "Alder", "Basalt", "Cobalt", "Driftwood", "Ember", "Fjord", "Granite", "Harbor", "Indigo", "Juniper", "Kestrel",
    "Larkspur", "Meridian", "Northwind", "Orchard", "Pinnacle", "Quarry", "Ridgeline", "Saffron", "Tundra",
)  # fmt: skip
BRANCHES = ("Analytics", "Biotech", "Foods", "Freight", "Insurance", "Labs", "Motors", "Optics", "Paper", "Textiles")
DEPARTMENTS = ("Engineering", "Finance", "Legal", "Marketing", "Operations", "People", "Sales", "Support")
MATERIALS = (
    "bamboo", "brass", "cashmere", "ceramic", "cork", "crystal", "leather", "linen", "merino", "oak", "silver",
    "slate", "steel", "velvet", "walnut",
)  # fmt: skip
THINGS = (
    "backpack", "blanket", "bottle", "candle", "chess set", "clock", "coaster set", "desk lamp", "fountain pen",
    "headphones", "lunch box", "mug", "notebook", "photo frame", "picnic basket", "scarf", "speaker", "tea set",
    "travel pillow", "umbrella", "wallet", "watch", "café press", "sake cups, 酒器",
)  # fmt: skip
STYLES = ("classic", "compact", "engraved", "festive", "handmade", "limited", "modern", "pocket", "recycled", "slim")
FEATURES = (
    "dishwasher safe", "engravable", "fair trade", "gift wrapped", "leak proof", "machine washable", "made to order",
    "plastic free", "rechargeable", "two-year warranty", "vegan", "water resistant",
)  # fmt: skip
COLORS = ("black", "cream", "forest", "graphite", "navy", "rose", "sand", "sky", "terracotta", "white")
TAGS = ("anniversary", "birthday", "bulk", "express", "five years", "gift note", "new hire", "retirement", "🎉")
CITIES = (
    ("Aarhus", "DK"), ("Bilbao", "ES"), ("Gdańsk", "PL"), ("Graz", "AT"), ("Izmir", "TR"), ("Lyon", "FR"),
    ("Malmö", "SE"), ("Osaka", "JP"), ("Porto", "PT"), ("Utrecht", "NL"), ("Zürich", "CH"),
)  # fmt: skip
STREETS = ("Canal Street", "Harbour Road", "Lindenallee", "Mill Lane", "Rue des Tilleuls", "Station Road", "Via Roma")
EVENT_TYPES = ("page_view", "gift_viewed", "gift_selected", "checkout_started", "order_placed", "email_opened")
TEMPLATES = ("order_confirmed", "order_shipped", "gift_invitation", "gift_reminder", "access_granted")

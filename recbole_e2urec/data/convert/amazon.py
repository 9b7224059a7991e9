"""Amazon Reviews 2023 (McAuley Lab): reviews and items of a category, one JSON object a line."""

from pathlib import Path

from recbole_e2urec.data.convert.common import (
    AtomicFiles,
    Catalogue,
    Findings,
    find,
    identifier,
    interactions,
    number,
    records,
    title,
)
from recbole_e2urec.errors import InputError

STARS = 5
# Number of reviews by category as its owners state it, rounded; they state none for meta files.
PUBLISHED = {
    "All_Beauty": "701.5K", "Amazon_Fashion": "2.5M", "Appliances": "2.1M",
    "Arts_Crafts_and_Sewing": "9.0M", "Automotive": "20.0M", "Baby_Products": "6.0M",
    "Beauty_and_Personal_Care": "23.9M", "Books": "29.5M", "CDs_and_Vinyl": "4.8M",
    "Cell_Phones_and_Accessories": "20.8M", "Clothing_Shoes_and_Jewelry": "66.0M",
    "Digital_Music": "130.4K", "Electronics": "43.9M", "Gift_Cards": "152.4K",
    "Grocery_and_Gourmet_Food": "14.3M", "Handmade_Products": "664.2K",
    "Health_and_Household": "25.6M", "Health_and_Personal_Care": "494.1K",
    "Home_and_Kitchen": "67.4M", "Industrial_and_Scientific": "5.2M", "Kindle_Store": "25.6M",
    "Magazine_Subscriptions": "71.5K", "Movies_and_TV": "17.3M", "Musical_Instruments": "3.0M",
    "Office_Products": "12.8M", "Patio_Lawn_and_Garden": "16.5M", "Pet_Supplies": "16.8M",
    "Software": "4.9M", "Sports_and_Outdoors": "19.6M", "Subscription_Boxes": "16.2K",
    "Tools_and_Home_Improvement": "27.0M", "Toys_and_Games": "16.3M", "Video_Games": "4.6M",
    "Unknown": "63.8M",
}  # fmt: skip


def convert(folder: Path, files: AtomicFiles) -> Findings:
    """Write ``.item`` and ``.inter``; an item is a ``parent_asin``, and times are in seconds.

    Raises:
        InputError: a file is missing, or a line is not as published.
    """
    findings = Findings()
    meta = find(folder, ["meta_*.jsonl"], "meta_<Category>.jsonl")
    category = meta.name.split(".")[0].removeprefix("meta_")
    path, rows = _reviews(folder, category), 0
    items = _items(meta, files, findings)
    with interactions(files, items=items) as inter_file:
        for place, record in records(path, ("user_id", "parent_asin", "rating", "timestamp")):
            milliseconds = int(number(record["timestamp"], place, "timestamp"))
            inter_file.add(
                identifier(record["user_id"], place, "user_id"),
                identifier(record["parent_asin"], place, "parent_asin"),
                number(record["rating"], place, "rating", STARS),
                f"{milliseconds // 1000}.{milliseconds % 1000:03d}",
            )
            rows += 1
        findings.count(path, rows, PUBLISHED.get(category))
        findings.lines += inter_file.notes()
    return findings


def _reviews(folder: Path, category: str) -> Path:
    path = find(folder, [f"{category}.jsonl"], f"{category}.jsonl")
    others = {other.name.split(".")[0] for other in folder.glob("*.jsonl*")}
    if others - {category, f"meta_{category}"}:
        raise InputError(f"{folder} has files of several categories; keep one category's two files")
    return path


def _items(path: Path, files: AtomicFiles, findings: Findings) -> set[str]:
    columns = ("item_id:token", "title:token_seq", "main_category:token")
    items = Catalogue(files, "item", columns)
    for place, record in records(path, ("parent_asin", "title")):
        item = identifier(record["parent_asin"], place, "parent_asin")
        items.add(item, title(record["title"]), title(record.get("main_category")))
    return items.report(findings, path, None)

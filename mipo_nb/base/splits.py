"""Training, development and test users, told apart by a hash of their ids."""

import hashlib
import math
import reprlib

from mipo_nb.base.errors import UserError
from mipo_nb.base.rows import OPTIONAL


def divide(users):
    """{user id: split} for different user ids.

    Guaranteed: of three or more each split gets at least one and half its share, of six or more `train` and `dev` get two,
    so that there is somebody else to swap with; the order of rows does not matter.
    Users have the split of `split_of`, which others cannot change, unless it leaves a split with less (3 in 10 sets of
    15 users, hardly any of 100). Then those beside it in the order of the hash move in; a user who is added later moves
    three others at most.
    """
    order = sorted(users, key=lambda user: (share_of(user), user))
    by_hash = [split_of(user) for user in order]
    n, dev, test = len(order), by_hash.count("train"), len(order) - by_hash.count("test")  # where each begins
    if n >= 3:
        least_train, least_dev, least_test = (math.ceil(n * share / 20) for share in (5, 2, 3))  # half the shares
        least_dev = max(least_dev, 1 + (n >= 6))
        dev = min(max(dev, least_train), n - least_dev - least_test)
        test = min(max(test, dev + least_dev), n - least_test)
    return {user: "train" if i < dev else "dev" if i < test else "test" for i, user in enumerate(order)}


def splits_of_users(located):
    """{user: split}, as the rows say, and by `divide` for users of whom none says it."""
    named = {}
    for where, row in located:
        user, split = row["user_id"], row.get("split")
        if split and named.setdefault(user, split) != split:
            raise UserError(f"{where}: user {reprlib.repr(user)} is in two splits; keep a user in one.")
    by_hash = {row["user_id"]: split_of(row["user_id"]) for _, row in located if row["user_id"] not in named}
    # Rows of one split that were written with all `columns`, to be handed on, are still of that split.
    handed_on = len(set(by_hash.values())) == 1 and all(
        row.keys() >= OPTIONAL.keys() - {"for_somebody_else", "history"} for _, row in located
    )
    return (by_hash if handed_on else divide(by_hash)) | named


def split_of(user_id):
    """The split that a hash of the user's id decides: half `train`, a fifth `dev`, three tenths `test`."""
    share = share_of(user_id)
    return "train" if share < 0.5 else "dev" if share < 0.7 else "test"


def share_of(text):
    """A number from 0 to 1, from a hash of the text alone, so that adding rows moves none to another split."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8

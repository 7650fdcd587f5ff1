"""
On which side of the equator and of the Greenwich meridian the countries of mobile country codes lie.

Only to find trackers whose hemisphere letters are wrong: a country that lies
on both sides proves nothing and stands in neither list of that axis.  (Codes:
ITU-T E.212; sides: any atlas.)
"""

from __future__ import annotations

from typing import Final


def _codes(text: str) -> frozenset[str]:
    """Codes; one of a single digit stands for all that begin so, one with a dash before it is none of them."""
    found: set[str] = set()
    for word in text.split():
        if word.startswith("-"):
            found.discard(word[1:])
        elif len(word) == 1:
            found |= {f"{word}{rest:02d}" for rest in range(100)}
        else:
            found.add(word)
    return frozenset(found)


_NORTH: Final = _codes(
    "2 3 4 -472 502 515 520 525 528 534 535 550 551 552 "
    "602 603 604 605 606 607 608 609 610 611 612 613 614 615 616 618 619 620 621 622 623 624 625 632 634 636 638 657 "
    "659 702 704 706 708 710 712 714 734 738 742 746"
)
_SOUTH: Final = _codes(
    "505 514 530 537 539 540 541 542 544 546 547 548 549 553 554 555 "
    "617 631 633 635 640 642 643 645 646 647 648 649 650 651 652 653 654 655 716 722 730 736 744 748 750"
)
_EAST: Final = _codes(
    "202 204 206 212 213 216 218 219 220 221 222 225 226 228 230 231 232 238 240 242 244 246 247 248 255 257 259 260 "
    "262 270 276 278 280 282 283 284 286 292 293 294 295 297 4 502 505 510 514 515 520 525 528 534 535 536 537 540 541 "
    "546 550 551 552 602 605 606 614 616 617 621 622 623 624 626 627 628 629 630 631 633 634 635 636 637 638 639 640 "
    "641 642 643 645 646 647 648 649 650 651 652 653 654 655 657 659"
)
_WEST: Final = _codes(
    "266 268 272 274 288 290 3 539 544 547 548 549 554 555 604 607 608 609 611 612 618 619 625 632 "
    "702 704 706 708 710 712 714 716 722 724 730 732 734 736 738 740 742 744 746 748 750"
)
#: Codes of the United States are in use on Guam too, and the Aleutians reach past the date line; and in American Samoa.
_PACIFIC: Final = _codes("310 311 312 313 314 315 316")
_PACIFIC_FROM: Final = 140.0
_PACIFIC_TO: Final = -160.0


def other_side(mcc: str, latitude: float, longitude: float, near: float) -> str:
    """
    The hemispheres in which a country lies where a position does not: C{S}, C{W}, C{SW} and so on; empty: none.

    @param latitude: degrees, north positive; C{longitude}: degrees, east positive.
    @param near: so many degrees from the equator or the meridian nothing is said.
    """
    sides = ""
    if latitude > near and mcc in _SOUTH:
        sides += "S"
    elif latitude < -near and mcc in _NORTH and not (mcc in _PACIFIC and longitude < _PACIFIC_TO):
        sides += "N"
    if longitude > near and mcc in _WEST and not (mcc in _PACIFIC and longitude > _PACIFIC_FROM):
        sides += "W"
    elif longitude < -near and mcc in _EAST:
        sides += "E"
    return sides

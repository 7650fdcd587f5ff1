"""On which side of the equator and of the Greenwich meridian mobile networks are."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from gateway.countries import other_side

#: A town in each of these countries: code, name, latitude, longitude.
TOWNS = (
    ("202", "Athens", 37.98, 23.73), ("204", "Amsterdam", 52.37, 4.90), ("206", "Brussels", 50.85, 4.35),
    ("208", "Brest", 48.39, -4.49), ("208", "Nice", 43.70, 7.27), ("213", "Andorra", 42.51, 1.52),
    ("214", "Barcelona", 41.39, 2.17), ("214", "Tenerife", 28.47, -16.25), ("222", "Rome", 41.90, 12.50),
    ("234", "Norwich", 52.63, 1.30), ("234", "Belfast", 54.60, -5.93), ("250", "Moscow", 55.76, 37.62),
    ("250", "Uelen", 66.16, -169.81), ("255", "Kyiv", 50.45, 30.52), ("262", "Berlin", 52.52, 13.40),
    ("266", "Gibraltar", 36.14, -5.35), ("268", "Ponta Delgada", 37.74, -25.67), ("272", "Dublin", 53.35, -6.26),
    ("274", "Reykjavik", 64.15, -21.94), ("286", "Ankara", 39.93, 32.86), ("288", "Torshavn", 62.01, -6.77),
    ("302", "Vancouver", 49.28, -123.12), ("310", "Honolulu", 21.31, -157.86), ("310", "Hagatna", 13.47, 144.75),
    ("311", "Saipan", 15.19, 145.75), ("334", "Mexico City", 19.43, -99.13), ("374", "Port of Spain", 10.65, -61.50),
    ("404", "Chennai", 13.08, 80.27), ("413", "Colombo", 6.93, 79.86), ("452", "Hanoi", 21.03, 105.85),
    ("460", "Shenzhen", 22.54, 114.06), ("470", "Dhaka", 23.81, 90.41), ("472", "Addu", -0.63, 73.16),
    ("472", "Male", 4.18, 73.51), ("502", "Johor Bahru", 1.49, 103.74), ("505", "Perth", -31.95, 115.86),
    ("510", "Medan", 3.60, 98.67), ("510", "Jakarta", -6.21, 106.85), ("514", "Dili", -8.56, 125.57),
    ("515", "Manila", 14.60, 120.98), ("525", "Singapore", 1.35, 103.82), ("530", "Auckland", -36.85, 174.76),
    ("530", "Waitangi", -43.95, -176.56), ("535", "Guam", 13.47, 144.75), ("537", "Port Moresby", -9.44, 147.18),
    ("539", "Nuku'alofa", -21.14, -175.20), ("542", "Suva", -18.14, 178.42), ("542", "Lomaloma", -17.29, -178.99),
    ("545", "Tarawa", 1.33, 172.98), ("545", "Kiritimati", 1.98, -157.48), ("547", "Papeete", -17.54, -149.57),
    ("602", "Cairo", 30.04, 31.24), ("603", "Oran", 35.70, -0.63), ("603", "Annaba", 36.90, 7.77),
    ("604", "Rabat", 34.02, -6.84), ("610", "Bamako", 12.64, -8.00), ("610", "Gao", 16.27, -0.04),
    ("612", "Abidjan", 5.36, -4.01), ("613", "Ouagadougou", 12.37, -1.52), ("613", "Diapaga", 12.07, 1.79),
    ("616", "Cotonou", 6.37, 2.39), ("620", "Accra", 5.60, -0.19), ("620", "Aflao", 6.12, 1.19),
    ("621", "Lagos", 6.52, 3.38), ("624", "Douala", 4.05, 9.77), ("627", "Bata", 1.86, 9.77),
    ("627", "Annobon", -1.43, 5.63), ("628", "Libreville", 0.42, 9.47), ("628", "Franceville", -1.63, 13.58),
    ("630", "Kinshasa", -4.44, 15.27), ("630", "Bunia", 1.57, 30.25), ("635", "Kigali", -1.94, 30.06),
    ("637", "Mogadishu", 2.05, 45.32), ("637", "Kismayo", -0.36, 42.54), ("639", "Nairobi", -1.29, 36.82),
    ("639", "Lodwar", 3.12, 35.60), ("640", "Dar es Salaam", -6.79, 39.21), ("641", "Kampala", 0.35, 32.58),
    ("641", "Kabale", -1.25, 29.99), ("646", "Antananarivo", -18.88, 47.51), ("655", "Johannesburg", -26.20, 28.05),
    ("704", "Guatemala", 14.63, -90.51), ("716", "Lima", -12.05, -77.04), ("722", "Buenos Aires", -34.60, -58.38),
    ("724", "Boa Vista", 2.82, -60.67), ("724", "Sao Paulo", -23.55, -46.63), ("730", "Santiago", -33.45, -70.67),
    ("732", "Bogota", 4.71, -74.07), ("732", "Leticia", -4.20, -69.94), ("734", "Caracas", 10.48, -66.90),
    ("740", "Esmeraldas", 0.97, -79.65), ("740", "Guayaquil", -2.19, -79.89), ("748", "Montevideo", -34.90, -56.16),
)  # fmt: skip

#: Countries on both sides of a line, of which nothing can be said there: codes by axis.
BOTH_NORTH_AND_SOUTH = "472 510 545 626 627 628 629 630 637 639 641 724 732 740".split()
BOTH_EAST_AND_WEST = "208 214 234 235 250 530 542 545 603 610 613 615 620".split()


class OtherSideTests(SynchronousTestCase):
    """Where a network's country lies and a position does not."""

    def test_at_home(self) -> None:
        """A town in the network's own country is on no wrong side."""
        for mcc, name, latitude, longitude in TOWNS:
            self.assertEqual("", other_side(mcc, latitude, longitude, 1.0), name)

    def test_mirrored(self) -> None:
        """The same town with a letter wrong is, but where the country lies on both sides, or near the line."""
        for mcc, name, latitude, longitude in TOWNS:
            north = "" if mcc in BOTH_NORTH_AND_SOUTH or abs(latitude) <= 1.0 else "N" if latitude > 0 else "S"
            self.assertEqual(north, other_side(mcc, -latitude, longitude, 1.0), name)
            east = "" if mcc in BOTH_EAST_AND_WEST or abs(longitude) <= 1.0 else "E" if longitude > 0 else "W"
            if mcc in ("310", "311"):
                continue  # below
            self.assertEqual(east, other_side(mcc, latitude, -longitude, 1.0), name)
            self.assertEqual(north + east, other_side(mcc, -latitude, -longitude, 1.0), name)

    def test_guam(self) -> None:
        """Networks of the United States are on Guam too: east of 140 degrees they are at home, in Asia they are not."""
        for mcc in ("310", "311", "316"):
            self.assertEqual("", other_side(mcc, 13.47, 144.75, 1.0))
            self.assertEqual("W", other_side(mcc, 40.0, 75.0, 1.0))
        self.assertEqual("W", other_side("334", 13.47, 144.75, 1.0))

    def test_samoa(self) -> None:
        """So are they in American Samoa, which lies south of the equator."""
        self.assertEqual("", other_side("311", -14.28, -170.70, 1.0))
        self.assertEqual("N", other_side("311", -40.0, -75.0, 1.0))

    def test_no_country(self) -> None:
        """A code of no country, of ships and of satellites, and what is no code, say nothing."""
        for mcc in ("", "0", "000", "001", "901", "999", "2", "26", "2600", "abc"):
            self.assertEqual("", other_side(mcc, 45.0, 45.0, 1.0))
            self.assertEqual("", other_side(mcc, -45.0, -45.0, 1.0))

    def test_near(self) -> None:
        """Exactly so many degrees from a line nothing is said, a little further it is."""
        self.assertEqual("", other_side("260", -1.0, -1.0, 1.0))
        self.assertEqual("NE", other_side("260", -1.001, -1.001, 1.0))
        self.assertEqual("NE", other_side("260", -0.001, -0.001, 0.0))

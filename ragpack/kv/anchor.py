"""Neutral passages to encode behind: they stand for the neighbours that a passage will have.

A passage encoded alone is the first of its prompt; in a request it mostly is not, and its keys and
values are off in the same way every time. Encoded behind a few passages about something else, which
are not kept, they are much nearer to what the plain prompt gives, at no cost to the request.
"""

__all__ = ["ANCHOR"]

ANCHOR = (
    """Veldra River
The Veldra is a river in the uplands of Orsany. It rises from two springs below Mount Kestrel, \
flows south for 184 kilometres and joins the Amble near the town of Fenwick. Its lower course was \
straightened between 1911 and 1926 to protect the meadows from floods, and barges carried grain \
and slate on it until the railway was opened.""",
    """Ilse Marnow
Ilse Marnow (born 3 March 1949) is a composer and conductor. She studied the viola and later \
composition, led the chamber orchestra of Halden from 1981 to 1997, and received the Lindqvist \
Prize for her second symphony. Her students include the pianists Tomas Ferro and Anna Brill.""",
    """Harrow Street Bridge
Harrow Street Bridge is a steel arch bridge over the northern harbour. Designed by the engineer \
Paul Okoye and opened in 1934, it replaced a ferry that had run for two centuries. The main span \
measures 212 metres. It has carried trams since 1951 and was listed as a monument in 2003.""",
    """Corvin Saltworks
The Corvin Saltworks was a company that made table salt from brine. Founded by three brothers in \
1868, it employed about 400 people at its height and owned its own school and theatre. Production \
ended in 1979, and the buildings now house a museum and the county archive.""",
    """The Glass Orchard
The Glass Orchard is a novel by Miriam Tolland, first published in 1962. It tells of a family of \
fruit growers during a year of drought, seen through the eyes of the youngest daughter. A film \
version directed by Henrik Aas appeared in 1970 and won two awards; critics praised its music.""",
    """Summer league
The summer league is a competition between the eight largest clubs of the province, held every \
year from May to August. Each team plays fourteen matches. In 2014 the trophy went to Rovers for \
the sixth time, after a final that was decided in extra time before 21,000 spectators.""",
)
"""Each a title line and a text, all invented."""

"""SMS against real peers: an SMSC of npm's smpp, one of Perl's Net::SMPP, and Kannel."""

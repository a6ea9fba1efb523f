"""What a host's own tests can use: real servers, the isolation machine, the attack gallery, conformance suites, fakes for faults."""

"""hyperhive: statistics of each agent's turns, the host's broker, and the Claude transcripts of the agents.

Does not belong here: what a line of a transcript means (claude_code/), what another runtime has as well (the modules
above).
"""

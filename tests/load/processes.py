"""What the processes of one part have used so far: processor time and memory, children included."""

import psutil


class ProcessTree:
    """One process with all its descendants, those that have already ended too as far as processor time goes."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)

    def cpu_s(self) -> float:
        """Seconds of processor time used since the process began."""
        total = 0.0
        for process in self._living():
            try:
                used = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += used.user + used.system
            # Only Linux tells what the children used that have ended.
            total += getattr(used, "children_user", 0.0) + getattr(used, "children_system", 0.0)
        return total

    def rss_bytes(self) -> int:
        """Resident memory now; pages shared between the processes count in each."""
        total = 0
        for process in self._living():
            try:
                total += int(process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        return total

    def _living(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

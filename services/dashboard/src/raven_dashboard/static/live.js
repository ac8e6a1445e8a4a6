/** What the service says as it happens; `heard` takes readings, `changed` that states did. */

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 30_000;

export function listen(address, { heard, changed, connected, lost }) {
  let pauseMs = FIRST_PAUSE_MS;
  let source = null;
  let timer = 0;
  const open = () => {
    clearTimeout(timer);
    source?.close();
    source = new EventSource(address);
    source.onopen = () => {
      pauseMs = FIRST_PAUSE_MS;
      connected();
    };
    source.onerror = () => {
      lost();
      // A browser gives up for good after some answers; one that still tries is left to it.
      if (source.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(open, pauseMs);
      pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
    };
    source.addEventListener("reading", (event) => heard(JSON.parse(event.data)));
    source.addEventListener("state", (event) => changed(JSON.parse(event.data)));
  };
  addEventListener("online", open);
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => event.persisted && open());
  open();
}

// The event stream: JSON messages become events named after their type, latent previews become `preview`.

const PREVIEW = 1;
const PREVIEW_WITH_METADATA = 4;
const RETRY_MS = [500, 1000, 2000, 5000];
/** A server with jobs says something every four seconds. */
const SILENCE_MS = 20_000;

/** Emits every server message as a `CustomEvent`, and `open` and `lost`; reconnects for ever. */
export class EventSocket extends EventTarget {
  isOpen = false;
  /** Whether the server has jobs, so that silence means that the connection is dead. */
  expectsEvents = false;
  #attempt = 0;
  #socket = null;
  #heard = 0;

  constructor(clientId) {
    super();
    this.clientId = clientId;
    this.#connect();
    // A network that has changed, as after a sleep, need not end a connection.
    setInterval(() => {
      const silent = performance.now() - this.#heard > SILENCE_MS;
      if (this.isOpen && this.expectsEvents && silent) this.#lose(this.#socket);
    }, SILENCE_MS / 4);
  }

  #connect() {
    const url = new URL("ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("clientId", this.clientId);
    const socket = (this.#socket = new WebSocket(url));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#attempt = 0;
      this.#heard = performance.now();
      this.isOpen = true;
      socket.send(JSON.stringify({ type: "feature_flags", data: { supports_preview_metadata: true } }));
      this.#emit("open");
    };
    socket.onmessage = ({ data }) => {
      this.#heard = performance.now();
      if (typeof data === "string") this.#text(data);
      else this.#binary(data);
    };
    socket.onclose = () => this.#lose(socket);
  }

  /** Gives a connection up and makes another one. */
  #lose(socket) {
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
    this.isOpen = false;
    this.#emit("lost");
    const wait = RETRY_MS[Math.min(this.#attempt++, RETRY_MS.length - 1)];
    setTimeout(() => this.#connect(), wait);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #text(text) {
    const message = JSON.parse(text);
    this.#emit(message.type, message.data);
  }

  /** Frames begin with a big-endian kind: 1 has an image type, 4 has length and JSON before the image. */
  #binary(buffer) {
    const view = new DataView(buffer);
    const kind = view.getUint32(0);
    if (kind === PREVIEW_WITH_METADATA) {
      const length = view.getUint32(4);
      const metadata = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
      const image = new Blob([new Uint8Array(buffer, 8 + length)], { type: metadata.image_type });
      this.#emit("preview", { id: metadata.prompt_id, image });
    } else if (kind === PREVIEW) {
      const type = view.getUint32(4) === 2 ? "image/png" : "image/jpeg";
      this.#emit("preview", { id: null, image: new Blob([new Uint8Array(buffer, 8)], { type }) });
    }
  }
}

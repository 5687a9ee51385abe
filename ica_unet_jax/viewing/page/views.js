// Asks the server for one view after the other, and comes back when the connection is lost.

const WRONG_TOKEN = 4401;
const TOO_MANY = 4503;
const FIRST_WAIT = 500; // ms until the next try; twice as many after each
const LONGEST_WAIT = 4000;

export class Views {
  // see(figures, planes) is called for each view, say(text, kind, goesOn) when the state of the connection changes.
  constructor(see, say) {
    this.see = see;
    this.say = say;
    this.paused = false;
    this.owed = false; // an answer is on its way
    this.wait = FIRST_WAIT;
    this.connect();
  }

  connect() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/views`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.figures = null;
    this.fresh = true; // what comes first tells the past as well
    this.owed = false;
    socket.onopen = () => this.ask();
    socket.onmessage = (event) => this.take(event.data);
    socket.onclose = (event) => {
      if (event.code === WRONG_TOKEN) {
        this.say("wrong token: open the address that the command printed", "bad");
        return;
      }
      this.say(event.code === TOO_MANY ? "too many pages are open" : "no connection, trying again", "bad");
      setTimeout(() => this.connect(), this.wait);
      this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
    };
  }

  take(data) {
    if (typeof data === "string") {
      this.figures = JSON.parse(data);
      this.wait = FIRST_WAIT;
      if (this.figures.frame) return; // its images follow
    }
    const figures = { ...this.figures, fresh: this.fresh };
    this.fresh = false;
    this.owed = false;
    this.see(figures, figures.frame ? new Uint8Array(data) : null);
    // The next is asked for when this one has been drawn. A page in the background draws nothing, and asks for nothing.
    requestAnimationFrame(() => this.ask());
  }

  ask() {
    if (this.paused || this.owed || this.socket.readyState !== WebSocket.OPEN) return;
    this.owed = true;
    this.socket.send(decodeURIComponent(location.hash.slice(1)));
  }

  pause(paused) {
    this.paused = paused;
    this.ask();
  }
}

/* Live figures and the number of unread notices, on every page of the admins, over one WebSocket of the same host. */
"use strict";

window.addEventListener("load", () => {
  const bell = document.querySelector("[data-staff-socket]");
  if (!bell) {
    return;
  }
  const unread = bell.querySelector("[data-unread]");
  const tiles = document.querySelectorAll("[data-tile]");
  const address = new URL(bell.dataset.staffSocket, window.location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  let pause = 1000;

  const show = (live) => {
    for (const tile of tiles) {
      tile.textContent = live?.[tile.dataset.tile] ?? "–";
    }
  };

  const connect = () => {
    const socket = new WebSocket(address);
    socket.addEventListener("message", (event) => {
      const told = JSON.parse(event.data);
      pause = 1000;
      show(told.live);
      unread.hidden = !told.unread;
      unread.textContent = told.unread >= 99 ? "99+" : told.unread;
    });
    socket.addEventListener("close", () => {
      show(null);
      window.setTimeout(connect, pause);
      pause = Math.min(pause * 2, 60000);
    });
  };
  connect();
});

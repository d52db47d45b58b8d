// How far a worker is with an import, asked for every second; the page is loaded anew when its state is another one.
(() => {
  const box = document.querySelector("[data-progress]");
  if (!box) return;
  const bar = box.querySelector("progress");
  const look = async () => {
    try {
      const answer = await fetch(location.pathname, { headers: { Accept: "application/json" } });
      if (answer.ok && answer.headers.get("Content-Type")?.startsWith("application/json")) {
        const now = await answer.json();
        if (now.state !== box.dataset.progress) return location.reload();
        if (now.state === "writing") bar.value = now.percent;
        box.querySelector("[data-done]").textContent = now.done;
        box.querySelector("[data-total]").textContent = now.total;
      }
    } catch {
      // The network is away for a moment: asked again.
    }
    setTimeout(look, document.hidden ? 5000 : 1000);
  };
  setTimeout(look, 1000);
})();

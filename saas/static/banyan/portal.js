// The theme: the one chosen in the admin (unfold keeps it under this name, as JSON), else the machine's.
(() => {
  const NAME = "_x_adminTheme";
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return JSON.parse(localStorage.getItem(NAME) ?? '"auto"');
    } catch {
      return "auto";
    }
  };
  const isDark = () => chosen() === "dark" || (chosen() !== "light" && system.matches);
  const show = () => document.documentElement.classList.toggle("dark", isDark());
  show();
  system.addEventListener("change", show);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme]")) return;
    localStorage.setItem(NAME, JSON.stringify(isDark() ? "light" : "dark"));
    show();
  });
  document.addEventListener("DOMContentLoaded", () => {
    const here = document.querySelector(".places [aria-current]");
    here?.scrollIntoView({ block: "nearest", inline: "center" });
  });
})();

// Light or dark: what the system says, unless the reader chose; the choice is kept if it can be.
(() => {
  "use strict";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const KEPT = "latentcli-theme";

  function kept() {
    try {
      return localStorage.getItem(KEPT);
    } catch {
      return null; // Storage is refused to some pages from a disk.
    }
  }

  function keep(theme) {
    try {
      localStorage.setItem(KEPT, theme);
    } catch {
      // Then it holds until the page is closed.
    }
  }

  const shown = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const other = () => (shown() === "dark" ? "light" : "dark");

  function addButton() {
    const masthead = document.querySelector(".masthead");
    if (!masthead) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "theme";
    const label = () => (button.textContent = other() === "dark" ? "Dark" : "Light");
    const describe = () => button.setAttribute("aria-label", `${label()} colours`);
    button.addEventListener("click", () => {
      root.dataset.theme = other();
      keep(root.dataset.theme);
      describe();
    });
    system.addEventListener("change", describe);
    describe();
    masthead.append(button);
  }

  const before = kept();
  if (before === "dark" || before === "light") root.dataset.theme = before;
  document.addEventListener("DOMContentLoaded", addButton);
})();

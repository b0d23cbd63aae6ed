// The theme's buttons: the policy of the pages allows no script in an attribute, so that each names what it calls.
const calls = { print: () => window.print(), toggleFullScreen: () => window.toggleFullScreen() };
for (const button of document.querySelectorAll("[data-call]")) {
  button.addEventListener("click", calls[button.dataset.call]);
}

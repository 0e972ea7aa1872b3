// Small pictures of the list, loaded when they come into sight.

import { picture } from "./api.js";

const RETRY_MS = 5000;
const paths = new WeakMap();
const sight = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      sight.unobserve(target);
      load(target);
    }
  },
  { rootMargin: "400px" },
);

async function load(image) {
  try {
    const url = URL.createObjectURL(await picture(paths.get(image)));
    image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    image.src = url;
  } catch {
    setTimeout(() => image.isConnected && sight.observe(image), RETRY_MS);
  }
}

/** Show the picture at `path` of the server in `image`. */
export function show(image, path) {
  paths.set(image, path);
  sight.observe(image);
}

// Draws the endpoints; a file of its own, since the Content-Security-Policy admits no script in a page.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#endpoints", deepLinking: true, docExpansion: "list", validatorUrl: null });

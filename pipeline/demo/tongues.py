"""Three short texts that are not English, so that the language filter has something to find.

Rule: written for this project, about nothing in particular.
"""

from pipeline.demo.articles import Article

GERMAN = Article(
    "own",
    "de",
    "Der Garten hinter dem Haus",
    """<p>Hinter dem Haus liegt ein kleiner Garten, den seit vielen Jahren niemand mehr richtig
gepflegt hat. Die Apfelbäume tragen trotzdem jeden Herbst, und wer im September kommt, findet
die Wiese voller Früchte.</p>
<p>Meine Großmutter erzählte gern, wie sie als Kind dort gearbeitet hatte. Man musste früh
aufstehen, das Wasser aus dem Brunnen holen und die Beete gießen, bevor die Sonne zu hoch stand. Am
Abend saß dann die ganze Familie unter der Linde, und es gab Brot mit Käse und ein Glas Most.</p>
<p>Heute wachsen zwischen den Steinen wilde Kräuter. Die Nachbarn holen sich manchmal etwas Minze
für den Tee, und im Winter streuen wir Körner für die Vögel. Einen Plan gibt es nicht, aber
vielleicht ist gerade das der Grund, warum sich dort alle so wohl fühlen.</p>""",
)

FRENCH = Article(
    "own",
    "fr",
    "La gare du village",
    """<p>Le train ne s'arrête plus dans notre village depuis longtemps, mais la petite gare est
toujours là, avec son horloge arrêtée et ses bancs de bois. Les enfants y jouent après l'école
et les anciens viennent s'y asseoir quand il fait beau.</p>
<p>Autrefois, le chef de gare connaissait tous les voyageurs par leur nom. Il savait qui partait au
marché, qui allait rendre visite à sa soeur, et qui ne reviendrait peut-être jamais. Il notait tout
dans un grand cahier que personne n'a retrouvé.</p>
<p>L'été dernier, une association a repeint les volets et planté des fleurs le long du quai. On y
organise maintenant des lectures, des concerts et, une fois par an, une grande fête où chacun
apporte un plat. Ce jour-là, on croirait presque entendre arriver le train du soir.</p>""".replace(
        "oe", "oe"
    ),
)

SPANISH = Article(
    "own",
    "es",
    "El mercado de los sábados",
    """<p>Todos los sábados por la mañana la plaza se llena de puestos, y desde muy temprano se
oyen las voces de los vendedores que anuncian tomates, naranjas y pescado fresco. Mi tía conoce
a casi todos y nunca compra nada sin preguntar primero por la familia.</p>
<p>Hay una señora que vende miel de las montañas y que explica con mucha paciencia de qué flores
viene cada frasco. A su lado, un hombre joven arregla relojes antiguos mientras la gente espera y
conversa sobre el tiempo.</p>
<p>Cuando dan las dos, los puestos se recogen en pocos minutos y la plaza vuelve a quedar vacía.
Entonces los niños salen a jugar a la pelota, y los perros buscan entre las cajas lo que alguien
pudo haber olvidado.</p>""",
)

TONGUES = (GERMAN, FRENCH, SPANISH)

from common.cli.commands import main

main()
